//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/tlstest"
	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// hostile is a kind of connection by which a client without a valid certificate
// wants to cost the gate much. open does all that the client does, and leaves the
// connection open; the gate may have closed it meanwhile, which is no error.
type hostile struct {
	name string
	cpu  float64 // how many times a plain handshake it may cost; 0: cpuFactor
	open func(ctx context.Context, g *target, i int) (*wire.Conn, error)
}

// hostileTimeout bounds each step of a hostile connection.
const hostileTimeout = 15 * time.Second

// showing is a kind that sends these certificates in its handshake, and then nothing.
func showing(name string, chain tls.Certificate) hostile {
	return hostile{name: name, open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
		return g.openShowing(ctx, i, chain, nil)
	}}
}

// openShowing does a handshake with these certificates, whichever CAs the gate asks
// for.
func (g *target) openShowing(ctx context.Context, i int, chain tls.Certificate, keys io.Writer) (*wire.Conn, error) {
	c, err := g.openFrom(ctx, i)
	if err != nil {
		return nil, err
	}
	config := g.lab.tlsConfig(credentials{})
	config.KeyLogWriter = keys
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &chain, nil }
	if err := c.RequestTLS(); err != nil {
		return c, ignoreCut(err)
	}
	return c, ignoreCut(c.Handshake(ctx, config))
}

func (g *target) openFrom(ctx context.Context, i int) (*wire.Conn, error) {
	tcp, err := fromLoopback(ctx, i, g.Address)
	if err != nil {
		return nil, err
	}
	return wire.New(tcp), tcp.SetDeadline(time.Now().Add(hostileTimeout))
}

// ignoreCut returns nil for the end of a connection: a gate may close a hostile one
// whenever it likes.
func ignoreCut(err error) error {
	var op *net.OpError
	if cut(err) || errors.As(err, &op) && op.Op == "remote error" || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// closeAll resets connections, which leaves no port in TIME_WAIT.
func closeAll(conns []*wire.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Reset()
		}
	}
}

// openMany opens n connections of a kind, eight at a time, from number first on.
func (g *target) openMany(ctx context.Context, h hostile, first, n int) (conns []*wire.Conn, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				c, e := h.open(ctx, g, first+i)
				mu.Lock()
				conns, err = append(conns, c), errors.Join(err, e)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return conns, err
}

// junk is a self-signed leaf and so many copies of it that the chain has size bytes.
func junk(size int, edit func(*x509.Certificate)) tls.Certificate {
	pair := tlstest.NewCA("nobody").Client("junk", func(c *x509.Certificate) {
		if edit != nil {
			edit(c)
		}
	})
	leaf := pair.TLS()
	leaf.Certificate = leaf.Certificate[:1]
	return padded(leaf, size)
}

// padded adds unrelated certificates behind a chain until it has size bytes.
func padded(c tls.Certificate, size int) tls.Certificate {
	have := 0
	for _, der := range c.Certificate {
		have += len(der) + 8
	}
	out := tls.Certificate{PrivateKey: c.PrivateKey, Leaf: c.Leaf, Certificate: append([][]byte(nil), c.Certificate...)}
	if have >= size {
		return out
	}
	// One certificate of 2 KiB or so, under names that differ, since crypto/tls keeps equal ones once.
	ca := tlstest.NewCA("padding")
	for n := 0; have < size; n++ {
		der := ca.Client(fmt.Sprintf("padding %d", n), func(t *x509.Certificate) {
			for i := range 90 {
				t.DNSNames = append(t.DNSNames, fmt.Sprintf("padding-%d-%d.example", n, i))
			}
		}).Leaf().Raw
		if have+len(der) > size {
			break
		}
		out.Certificate = append(out.Certificate, der)
		have += len(der) + 8
	}
	return out
}

// junkSize is what still passes limits.max_handshake_bytes.
const junkSize = 13 << 10

// parsingFactor is what a certificate of junkSize may cost: crypto/tls parses it in the
// handshake, before anybody can refuse it. limits.max_handshake_bytes bounds it.
const parsingFactor = 2.5

// growing are leaves that take much more memory when parsed than on the wire.
func growing() []hostile {
	kinds := []hostile{
		showing("a leaf of many names", junk(0, func(c *x509.Certificate) {
			for i := range junkSize / 16 {
				c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: fmt.Sprint(i % 10)})
			}
		})),
		showing("a leaf of many DNS names", junk(0, func(c *x509.Certificate) {
			for range junkSize / 4 {
				c.DNSNames = append(c.DNSNames, "a")
			}
		})),
		showing("a leaf of many OIDs", junk(0, func(c *x509.Certificate) {
			for i := range junkSize / 6 {
				c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, asn1.ObjectIdentifier{1, 2, i % 100, 3})
			}
		})),
		showing("a leaf of many extensions", junk(0, func(c *x509.Certificate) {
			for i := range junkSize / 14 {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, i % 16000}, Value: []byte{5, 0}})
			}
		})),
		showing("unrelated certificates behind a leaf", junk(junkSize, nil)),
	}
	for i := range kinds {
		kinds[i].cpu = parsingFactor
	}
	return kinds
}

// exploding is a leaf with 15 CAs of one name and one key (P-521): each could be the
// issuer of each, which is more signatures to try than any honest chain has.
func exploding() (hostile, error) {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return hostile{}, err
	}
	name := pkix.Name{CommonName: "one of many"}
	authority := func(i int) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: name, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			DNSNames: []string{fmt.Sprintf("%d.example", i)}, // or crypto/x509 takes them for one
		}
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return hostile{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1000), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority(0), leafKey.Public(), key)
	chain := tls.Certificate{PrivateKey: leafKey, Certificate: [][]byte{der}}
	for i := range 15 {
		ca, e := x509.CreateCertificate(rand.Reader, authority(i), authority(i+1), key.Public(), key)
		err = errors.Join(err, e)
		chain.Certificate = append(chain.Certificate, ca)
	}
	return showing("15 CAs of one name and one key (P-521)", chain), err
}

// updateChunk is how many bytes of KeyUpdates a client sends at a time. It is small, and a client whose end
// the gate has said computes no more of them: its processor is the gate's here, and not on the Internet.
const updateChunk = 2 << 10

// sendUpdates changes the key of a client 15 times before each byte, until the gate has enough.
func sendUpdates(c *wire.Conn, k *wire.KeyUpdater, data string) (err error) {
	var out []byte
	for _, b := range []byte(data) {
		for range 15 {
			if out, err = k.Update(out); err != nil {
				return err
			}
		}
		out = k.Data(out, b)
		if len(out) < updateChunk {
			continue
		}
		if _, err := c.TCP.Write(out); err != nil {
			return ignoreCut(err)
		}
		if out = out[:0]; answeredBy(c) {
			return nil
		}
	}
	return nil
}

// answeredBy reports whether something has come that was not read, or the end.
func answeredBy(c *wire.Conn) (came bool) {
	raw, err := c.TCP.SyscallConn()
	if err != nil {
		return true
	}
	e := raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		came = !errors.Is(err, unix.EAGAIN)
	})
	return came || e != nil
}

// openUpdating opens a connection with a certificate that can change its key. It returns no KeyUpdater if there is no
// TLS on it.
func (g *target) openUpdating(ctx context.Context, i int) (*wire.Conn, *wire.KeyUpdater, error) {
	var keys bytes.Buffer
	c, err := g.openShowing(ctx, i, g.lab.client.pair.TLS(), &keys)
	if err != nil || c.TLS == nil {
		return c, nil, err
	}
	k, err := wire.NewKeyUpdater(keys.String())
	return c, k, err
}

// updating changes its key 15 times before each byte of the longest startup packet.
func updating() hostile {
	return hostile{name: "15 KeyUpdates before each byte of the startup packet", open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
		c, k, err := g.openUpdating(ctx, i)
		if k == nil {
			return c, err
		}
		// A length near the limit, and the version.
		return c, sendUpdates(c, k, "\x00\x00\x27\x00\x00\x03\x00\x00"+strings.Repeat("a", 9000))
	}}
}

// plainLogin logs in, and asks nothing.
var plainLogin = hostile{name: "a plain login", open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
	c, err := g.openShowing(ctx, i, g.lab.client.pair.TLS(), nil)
	if err != nil || c.TLS == nil {
		return c, err
	}
	return c, c.Exchange(wire.Startup(wire.Protocol30, "user", appUser, "database", "postgres"))
}}

// updatingLater changes its key 15 times before each byte of a message of size bytes that it
// sends behind its startup packet, as a role: one that PostgreSQL asks for its password, or one
// that it logs in.
func updatingLater(name, role string, kind byte, size int) hostile {
	return hostile{name: name, open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
		c, k, err := g.openUpdating(ctx, i)
		if k == nil {
			return c, err
		}
		startup := wire.Startup(wire.Protocol30, "user", role, "database", "postgres")
		if _, err := c.TCP.Write(k.Data(nil, []byte(startup)...)); err != nil {
			return c, ignoreCut(err)
		}
		last := byte('Z')
		if role == passwordUser {
			last = 'R'
		}
		if _, err := c.Skip(last); err != nil {
			return c, err
		}
		return c, sendUpdates(c, k, wire.Message(kind, strings.Repeat("x", size)))
	}}
}

// segmentsFactor is what a connection of 4,000 segments may cost. Most of it is the kernel's work for each, and Go's
// poller, which the gate cannot spare.
const segmentsFactor = 20

// byteByByte sends the beginning of a long ClientHello so that the gate is woken up for each byte.
func byteByByte() hostile {
	return hostile{name: "a ClientHello in 4,000 segments", cpu: segmentsFactor, open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
		c, err := g.openFrom(ctx, i)
		if err != nil {
			return nil, err
		}
		if err := c.RequestTLS(); err != nil {
			return c, ignoreCut(err)
		}
		hello := "\x16\x03\x01\x3f\xf0\x01\x00\x3f\xec\x03\x03" + strings.Repeat("x", 4_000)
		for i := range len(hello) {
			time.Sleep(50 * time.Microsecond) // else they would come together
			if err := c.Send(hello[i : i+1]); err != nil {
				return c, ignoreCut(err)
			}
		}
		return c, nil
	}}
}

// deafHello asks for a handshake and reads none of it, with the smallest receive
// buffer that the kernel gives.
func deafHello(hello string) hostile {
	return hostile{name: "a client that does not read its handshake", open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
		d := net.Dialer{
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%20))},
			Control: func(_, _ string, raw syscall.RawConn) (err error) {
				e := raw.Control(func(fd uintptr) {
					err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1), unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 500)) // the send buffer grows with it
				})
				return errors.Join(err, e)
			},
		}
		tcp, err := d.DialContext(ctx, "tcp", g.Address)
		if err != nil {
			return nil, err
		}
		c := wire.New(tcp)
		_ = c.SetDeadline(time.Now().Add(hostileTimeout))
		if err := c.RequestTLS(); err != nil {
			return c, ignoreCut(err)
		}
		return c, ignoreCut(c.Send(hello))
	}}
}

// halfOpen asks for TLS and says nothing more.
var halfOpen = hostile{name: "a connection that asks for TLS and sends nothing more", open: func(ctx context.Context, g *target, i int) (*wire.Conn, error) {
	c, err := g.openFrom(ctx, i)
	if err != nil {
		return nil, err
	}
	return c, ignoreCut(c.RequestTLS())
}}

// judged waits until the gate has computed so many handshakes more than before, or
// refused them.
func (g *target) judged(ctx context.Context, before gate.Metrics, n int) error {
	return gate.Eventually(ctx, "the gate has computed the handshakes", time.Minute, func() error {
		m, err := g.Metrics()
		if err != nil {
			return err
		}
		if got := handshakes(m) - handshakes(before); got < float64(n) {
			return fmt.Errorf("%v of %d", got, n)
		}
		return nil
	})
}

func handshakes(m gate.Metrics) float64 {
	return m.Sum("pgwicket_tls_handshakes_total") + m[`pgwicket_connections_refused_total{outcome="handshake_too_large"}`]
}
