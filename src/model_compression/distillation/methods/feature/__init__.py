"""Distillation of features: maps (B, C, H, W) between the layers, in pairs of student and teacher."""
