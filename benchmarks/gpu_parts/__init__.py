"""The parts of `gpu.py`: each is a function from a `bench.Bench` to rows of its table."""
