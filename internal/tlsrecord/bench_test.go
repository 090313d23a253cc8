package tlsrecord

import (
	"crypto/tls"
	"net"
	"testing"
)

// BenchmarkSeal seals what one read of a backend brings, in records of 8 KiB.
func BenchmarkSeal(b *testing.B) {
	for _, k := range []kind{aes13, kinds[2], aes12} {
		b.Run(k.String(), func(b *testing.B) {
			l, p := k.layers(b, false), body(64<<10)
			var out []byte
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				out = out[:0]
				for n := 0; n < len(p); n += 8 << 10 {
					out, _ = l.Seal(out, p[n:n+8<<10])
				}
			}
		})
	}
}

// BenchmarkOpen opens what one read of a client brings, in records of 8 KiB and with half a
// one at either end.
func BenchmarkOpen(b *testing.B) {
	for _, k := range []kind{aes13, kinds[2], aes12} {
		b.Run(k.String(), func(b *testing.B) {
			l := k.layers(b, false)
			var came []byte
			for range 9 {
				came, _ = l.peer.Seal(came, body(8<<10))
			}
			seq := l.in.seq
			plain := make([]byte, 0, 128<<10)
			b.SetBytes(9 * 8 << 10)
			b.ReportAllocs()
			for b.Loop() {
				l.in.seq = seq
				if _, _, err := l.Open(plain, came[:4<<10], nil); err != nil {
					b.Fatal(err)
				}
				if _, _, err := l.Open(plain, came[4<<10:], nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCold seals and opens a short record with ciphers that must be made first.
func BenchmarkCold(b *testing.B) {
	l := aes13.layers(b, false)
	var out, came []byte
	came, _ = l.peer.Seal(came, []byte("select 1"))
	seq := l.in.seq
	b.ReportAllocs()
	for b.Loop() {
		l.in.cipher, l.out.cipher, l.in.seq = nil, nil, seq
		out, _ = l.Seal(out[:0], []byte("select 1"))
		if _, _, err := l.Open(out[:0], came, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKeyUpdate is what a peer makes us do for 27 bytes.
func BenchmarkKeyUpdate(b *testing.B) {
	l := aes13.layers(b, false)
	b.ReportAllocs()
	for b.Loop() {
		l.in.update(l.suite)
		l.prepare(&l.in)
	}
}

// BenchmarkHandshake is a handshake, both ends of it, on every processor at a time: all
// write to their key logs under one lock of crypto/tls.
func BenchmarkHandshake(b *testing.B) {
	for _, taken := range []bool{false, true} {
		b.Run(map[bool]string{false: "crypto/tls", true: "taken over"}[taken], func(b *testing.B) {
			forServer, forClient := aes13.configs()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					x, y := net.Pipe()
					client := tls.Client(y, forClient)
					done := make(chan error, 1)
					go func() { done <- client.Handshake() }()
					if taken {
						h := Server(&wire{Conn: x}, forServer)
						if err := h.Handshake(); err != nil {
							b.Error(err)
						}
						if _, ok := h.Conn().(*Conn); !ok {
							b.Error("not taken over")
						}
					} else if err := tls.Server(x, forServer).Handshake(); err != nil {
						b.Error(err)
					}
					if err := <-done; err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
