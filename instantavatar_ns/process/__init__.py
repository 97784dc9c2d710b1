"""From a video of a person to a folder that trains: frames, masks, landmarks, camera, poses."""
