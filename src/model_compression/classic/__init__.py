"""The experiment of 2016: its command line, and the weights that Caffe and caffe-tensorflow left behind."""
