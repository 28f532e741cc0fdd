"""What is measured: model files, the inputs they are fed with, the weights they run with."""
