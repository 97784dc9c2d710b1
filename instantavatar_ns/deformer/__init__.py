"""Fast-SNARF (arXiv 2211.15601): canonical correspondences of posed points under linear blend skinning."""
