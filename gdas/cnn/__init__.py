"""The search space of image cells: convolutional networks for CIFAR and ImageNet."""
