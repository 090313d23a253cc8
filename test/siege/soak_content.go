//go:build linux

package main

import (
	"bytes"
	"crypto/md5" //nolint:gosec // what PostgreSQL computes, too; no secret
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// md5hex is md5() of PostgreSQL.
func md5hex(text string) string {
	sum := md5.Sum([]byte(text)) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

// md5s is the digests md5(key || i) for i from 1 to n, in a row: content that both
// ends compute and that is never sent.
func md5s(key string, n int) []byte {
	out := make([]byte, 0, n*2*md5.Size)
	for i := 1; i <= n; i++ {
		sum := md5.Sum(strconv.AppendInt([]byte(key), int64(i), 10)) //nolint:gosec // as above
		out = hex.AppendEncode(out, sum[:])
	}
	return out
}

// noise is bytes of any value.
func noise(rnd *rand.Rand, n int) []byte {
	var key [32]byte
	for i := range key {
		key[i] = byte(rnd.Uint32())
	}
	out := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(out)
	return out
}

// size draws a size: mostly small, at times up to most.
func size(rnd *rand.Rand, most int) int {
	bits := 1
	for 1<<bits < most {
		bits++
	}
	return 1 + rnd.IntN(min(most, 1<<(1+rnd.IntN(bits))))
}

// mismatch is an answer that is not the expected one.
type mismatch struct{ what string }

func (m *mismatch) Error() string { return m.what }

// compare returns a *mismatch unless both are the same.
func compare(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	around := func(b []byte) []byte { return b[max(0, min(len(b), at-16)):min(len(b), at+16)] }
	return &mismatch{fmt.Sprintf("%d bytes came, %d were due; from byte %d on they differ: %q came where %q was due",
		len(got), len(want), at, around(got), around(want))}
}
