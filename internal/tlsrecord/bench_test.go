package tlsrecord

import (
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
