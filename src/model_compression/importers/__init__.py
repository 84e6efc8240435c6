"""Weights that other frameworks left behind: Caffe's .caffemodel and the .npy dictionaries of caffe-tensorflow."""
