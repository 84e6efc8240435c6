"""From a network to the file that ships, and the proof that the file answers as the network does.

Nothing is imported here: an ONNX file is run without torch.
"""
