"""A fleet that drives: physics, faults, recorded drives, and the vehicle's side of delivery."""
