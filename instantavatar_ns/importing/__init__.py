"""Result files of pose estimators, turned into recordings that can be trained on."""
