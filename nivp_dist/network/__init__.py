"""The network: one flat vector of parameters, its field and factors, units of outputs, frames of parameters."""
