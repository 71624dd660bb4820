"""The network: a field of one flat vector of parameters, its Jacobian factors, scales of outputs, frames."""
