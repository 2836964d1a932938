"""Any PyTorch network, op by op: values forward, gradients backward, each by a readable formula."""
