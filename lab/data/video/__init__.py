"""Video: which moments are shown, and how files, animations and folders of frames are decoded."""
