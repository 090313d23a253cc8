package tlsrecord

import (
	"errors"
	"io"
)

// State is a Layer outside of its process: all that another one needs to go on with
// the connection. It holds keys. Whoever carries it hands it to the process that takes
// over and to nobody else, and calls Wipe.
type State struct {
	Version     uint16 // tls.VersionTLS12 or tls.VersionTLS13
	CipherSuite uint16
	Client      bool // this end was the client of the handshake
	In, Out     Keys
	// Partial is the beginning of a record that has not come whole, as it came.
	Partial []byte
	// Message is the beginning of a handshake message of TLS 1.3, opened, whose rest is
	// in records to come; Skip is how many bytes of one are still to be ignored.
	Message []byte
	Skip    uint32
	// Useless counts the records without data since the last one with data, and Grant
	// the KeyUpdates that the peer may ask for beside them.
	Useless, Grant uint16
	// InClosed says that the peer's close_notify has come, OutClosed that ours, or a
	// fatal alert, has been made.
	InClosed, OutClosed bool
}

// Keys are one direction of a State.
type Keys struct {
	Secret   []byte // of TLS 1.3, from which the next key is made; TLS 1.2 has none
	Key, IV  []byte
	Sequence uint64 // of the next record
}

// Wipe overwrites the keys and what was opened.
func (s *State) Wipe() {
	for _, b := range [][]byte{s.In.Secret, s.In.Key, s.In.IV, s.Out.Secret, s.Out.Key, s.Out.IV, s.Message} {
		clear(b)
	}
}

var errState = errors.New("tlsrecord: not the state of a connection")

// Export returns the state of the connection, with copies of its own. The Layer must not
// be used any more, or two processes would seal different records with one nonce: after a
// hand-over that has succeeded, call Wipe; one that has failed is undone by going on with
// the Layer and wiping the State. A connection that has failed has no state.
func (l *Layer) Export() (*State, error) {
	if l.err != nil && l.err != io.EOF { //nolint:errorlint // it is ours
		return nil, l.err
	}
	return &State{
		Version: l.version, CipherSuite: l.id, Client: l.client,
		In: l.in.export(l.suite), Out: l.out.export(l.suite),
		Partial: append([]byte(nil), l.partial...),
		Message: append([]byte(nil), l.message...), Skip: l.skip,
		Useless: l.useless, Grant: l.grant,
		InClosed: l.err != nil, OutClosed: l.closed,
	}, nil
}

func (h *half) export(s *suite) Keys {
	k := Keys{Key: append([]byte(nil), h.key[:s.keyLen]...), IV: append([]byte(nil), h.iv[:s.ivLen]...), Sequence: h.seq}
	if s.tls13 {
		k.Secret = append([]byte(nil), h.secret[:s.hashLen]...)
	}
	return k
}

// Import returns the Layer of a state. It copies what it needs: Wipe the state then. It
// fails for a state that Export cannot have made.
func Import(s *State) (*Layer, error) {
	suite := suiteOf(s.Version, s.CipherSuite)
	if suite == nil || len(s.Partial) >= maxRecord || len(s.Message) > maxMessage || s.Skip >= 1<<24 || s.Useless > maxUseless || s.Grant > maxGrant {
		return nil, errState
	}
	if !suite.tls13 && len(s.Message)+int(s.Skip) > 0 {
		return nil, errState
	}
	l := &Layer{
		suite: suite, version: s.Version, id: s.CipherSuite, client: s.Client, skip: s.Skip,
		useless: s.Useless, grant: s.Grant, closed: s.OutClosed, budget: firstBudget,
	}
	if !l.in.restore(suite, &s.In) || !l.out.restore(suite, &s.Out) {
		return nil, errState
	}
	if len(s.Message) > 0 {
		l.message = append([]byte(nil), s.Message...)
	}
	if s.InClosed {
		l.err = io.EOF
		return l, nil
	}
	// A whole record cannot be waiting, nor a header that would have been refused.
	if len(s.Partial) >= headerLen {
		if n, a, _ := l.recordLen(s.Partial); a != 0 || len(s.Partial) >= n {
			return nil, errState
		}
	}
	l.keep(s.Partial)
	return l, nil
}

func (h *half) restore(s *suite, k *Keys) bool {
	secret := 0
	if s.tls13 {
		secret = s.hashLen
	}
	if len(k.Secret) != secret || len(k.Key) != s.keyLen || len(k.IV) != s.ivLen {
		return false
	}
	copy(h.secret[:], k.Secret)
	h.setKey(k.Key, k.IV)
	h.seq = k.Sequence
	return true
}
