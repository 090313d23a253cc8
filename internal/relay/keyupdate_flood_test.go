package relay

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// keyUpdater is the writing half of a TLS 1.3 client that can do what neither
// crypto/tls nor libpq would: change its key after every record.
type keyUpdater struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func (k *keyUpdater) expand(label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(6+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	key, err := hkdf.Expand(sha256.New, k.secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return key
}

func (k *keyUpdater) use(secret []byte) {
	k.secret, k.seq = secret, 0
	block, err := aes.NewCipher(k.expand("key", 16))
	if err != nil {
		panic(err)
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	k.iv = k.expand("iv", 12)
}

// record appends one record of TLS 1.3 (RFC 8446, section 5.2).
func (k *keyUpdater) record(out []byte, kind byte, body ...byte) []byte {
	inner := append(bytes.Clone(body), kind)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+16))
	nonce := bytes.Clone(k.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(k.seq >> (56 - 8*i))
	}
	k.seq++
	return k.aead.Seal(append(out, head...), nonce, inner, head)
}

// update appends a KeyUpdate (section 4.6.3) that asks for an answer, or not.
func (k *keyUpdater) update(out []byte, ask byte) []byte {
	out = k.record(out, 22, 24, 0, 0, 1, ask)
	k.use(k.expand("traffic upd", 32))
	return out
}

// A client that does nothing but change its key costs us a key derivation for
// 27 bytes, and 27 bytes of answer; crypto/tls stops it after 16 in a row, but a
// single byte of data in between starts the count anew (CVE-2026-56862, and
// CVE-2026-32283 for the answers). It must not fill our memory with answers that
// it does not read, nor keep the other sessions of its loop waiting.
func TestKeyUpdateFlood(t *testing.T) {
	for _, ask := range []byte{0, 1} {
		var keys bytes.Buffer
		shared, stop := sharedRelay(t)
		attacker, victim := newRig(t, rigging{relay: shared, keys: &keys}), newRig(t, rigging{relay: shared})
		if err := attacker.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, attacker.backend) }()
		go func() { _, _ = io.Copy(victim.backend, victim.backend) }()
		k := clientKeys(t, keys.String())
		if k == nil {
			t.Skip("the suite is not AES-128-GCM")
		}
		var flood []byte
		for len(flood) < 8<<20 {
			for range 15 {
				flood = k.update(flood, ask)
			}
			flood = k.record(flood, 23, 'x')
		}
		quiet := roundTrips(t, victim.client)
		sent := make(chan int)
		go func() {
			n, _ := attacker.tcp.Write(flood) // which reads nothing
			sent <- n
		}()
		during := roundTrips(t, victim.client)
		t.Logf("ask %d: a round trip takes %v, and %v beside the flood", ask, quiet, during)
		if during > 50*quiet+100*time.Millisecond {
			t.Errorf("ask %d: beside the flood a round trip takes %v instead of %v", ask, during, quiet)
		}
		attacker.close()
		if n := <-sent; ask == 1 && n == len(flood) {
			t.Errorf("the gate has taken %d bytes of KeyUpdates from a client that reads no answer", n)
		}
		victim.close()
		stop()
	}
}

// clientKeys makes a keyUpdater of the client's secret in a key log, nil if its
// suite is another one than the updater knows.
func clientKeys(t *testing.T, log string) *keyUpdater {
	t.Helper()
	for line := range strings.Lines(log) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "CLIENT_TRAFFIC_SECRET_0" {
			continue
		}
		secret, err := hex.DecodeString(f[2])
		if err != nil {
			t.Fatal(err)
		}
		if len(secret) != sha256.Size {
			return nil
		}
		k := new(keyUpdater)
		k.use(secret)
		return k
	}
	return nil
}

// roundTrips is how long half of some echoes take at most. A flood that keeps others waiting slows all of them; a
// machine with other things to do, some.
func roundTrips(t *testing.T, c *tls.Conn) time.Duration {
	t.Helper()
	var took [100]time.Duration
	b := make([]byte, 1)
	for i := range took {
		began := time.Now()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took[:])
	return took[len(took)/2]
}

// What crypto/tls has to answer to one client must not go out on another's
// connection, also where its backend is gone before the answer is sent.
func TestAnswerWithoutABackend(t *testing.T) {
	var keys bytes.Buffer
	shared, stop := sharedRelay(t)
	attacker, victim := newRig(t, rigging{relay: shared, keys: &keys}), newRig(t, rigging{relay: shared})
	for _, r := range []*rig{attacker, victim} {
		if err := r.client.Handshake(); err != nil {
			t.Fatal(err)
		}
		<-r.started
	}
	go func() { _, _ = io.Copy(victim.backend, victim.backend) }()
	k := clientKeys(t, keys.String())
	if k == nil {
		t.Skip("the suite is not AES-128-GCM")
	}
	_ = roundTrips(t, victim.client)
	// The client reads nothing, so the relay does not see its backend's end.
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		row := make([]byte, 64<<10)
		_ = attacker.backend.SetWriteDeadline(time.Now().Add(time.Second))
		for {
			if _, err := attacker.backend.Write(row); err != nil {
				return
			}
		}
	}()
	<-sent
	_ = attacker.backend.Close()
	if _, err := attacker.tcp.Write(k.record(k.update(nil, 1), 23, 'x')); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		_ = roundTrips(t, victim.client)
		time.Sleep(10 * time.Millisecond)
	}
	attacker.close()
	victim.close()
	stop()
}

// crypto/tls gives up after 16 records in a row that carry no data. A JDK repeats its
// KeyUpdate until it is answered, and reaches that in a long COPY (golang/go#80528,
// pgjdbc/pgjdbc#2879): the limit is not the client's fault, and the result says which
// it was.
func TestKeyUpdateLimit(t *testing.T) { eachRelay(t, testKeyUpdateLimit) }

func testKeyUpdateLimit(t *testing.T, with starter) {
	var keys bytes.Buffer
	r := newRig(t, rigging{relay: with, keys: &keys})
	if _, err := r.client.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	wait(t, "the data is relayed", func() bool { return r.counted[0].Load() == 4 })
	k := clientKeys(t, keys.String())
	if k == nil {
		t.Skip("the suite is not AES-128-GCM")
	}
	k.seq = 1 // the client has sent one record
	var updates []byte
	for range 17 {
		updates = k.update(updates, 1)
	}
	if _, err := r.tcp.Write(updates); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r.backend); string(got) != "data" || err != nil {
		t.Errorf("the backend read %q, %v", got, err)
	}
	r.ended(LimitReached, 4, 0)
	if r.result.Err == nil || !strings.Contains(r.result.Err.Error(), "non-advancing records") {
		t.Errorf("the error is %v", r.result.Err)
	}
}
