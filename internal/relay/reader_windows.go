package relay

// reader reads a socket into a buffer that it holds while it waits: on Windows a socket cannot be read without waiting.
type reader struct{ socket Socket }

func newReader(s Socket) (*reader, error) { return &reader{s}, nil }

// read waits for bytes; the caller gives the buffer back. The end of the stream is io.EOF, without a buffer.
func (r *reader) read() (buf *[bufferSize]byte, n int, err error) { return readHolding(r.socket) }
