"""Methods that match the embeddings of a network without a head; the layers that project them are not part of it."""
