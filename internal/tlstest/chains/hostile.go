package chains

import (
	"crypto/elliptic"
	"fmt"
)

// Hostile are chains that were made to cost much. The first of each is the leaf,
// and none leads to the root.
type Hostile struct {
	Root   []byte
	Chains map[string][][]byte
}

// NewHostile makes them.
func NewHostile() (*Hostile, error) {
	k := &keys{}
	for _, to := range []**key{&k.root, &k.sub, &k.leaf, &k.other} {
		signer, err := onCurve(elliptic.P256())()
		if err != nil {
			return nil, err
		}
		if *to, err = newKey(signer); err != nil {
			return nil, err
		}
	}
	// by is a CA that is there by its name and key only.
	by := func(cn string, key *key) *node { return &node{name: dn("CN=" + cn), key: key} }
	h := &Hostile{Root: issue(nil, k.root, rootName, ca).der, Chains: map[string][][]byte{}}
	add := func(name string, n *node) { h.Chains[name] = append(h.Chains[name], n.der) }
	for _, name := range []string{"each may have signed each", "none has signed", "deep"} {
		add(name, issue(by("A", k.sub), k.leaf, leafName, leaf, plain))
	}
	for range 400 {
		add("each may have signed each", issue(by("B", k.sub), k.sub, dn("CN=A"), ca, plain))
		add("each may have signed each", issue(by("A", k.sub), k.sub, dn("CN=B"), ca, plain))
		add("none has signed", issue(by("B", k.other), k.other, dn("CN=A"), ca, plain))
	}
	above := "A"
	for i := range 300 {
		name := above
		above = fmt.Sprintf("Deep %d", i)
		add("deep", issue(by(above, k.sub), k.sub, dn("CN="+name), ca, plain))
	}
	return h, nil
}
