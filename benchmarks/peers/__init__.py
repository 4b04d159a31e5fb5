"""What people would use instead, each as a program that speaks `benchmarks.peers.protocol`."""
