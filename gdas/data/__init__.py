"""Data sets of images, photos and text: download, conversion, batches, augmentation."""
