"""The board: a "Dead ReLU" tab in TensorBoard, through its data provider. Nothing here imports torch."""
