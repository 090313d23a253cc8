//go:build !linux

package handover

// Close does nothing: a frame has descriptors on Linux only.
func (f *Frame) Close() {}
