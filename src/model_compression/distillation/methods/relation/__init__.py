"""Methods that compare the relations between samples: distances, angles, similarities."""
