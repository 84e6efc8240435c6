"""The experiment of 2016: its command line, and the weights of Caffe and caffe-tensorflow."""
