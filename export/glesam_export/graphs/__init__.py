"""The three graphs: one nn.Module each, written for export, reading a reference's weights."""
