package chains

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Random makes chains at random: up to three sub-CAs, each with what CAs have and
// should not have, beside others of the same names.
type Random struct {
	r    *rand.Rand
	keys *keys
	n    int
}

// NewRandom makes the keys. The directory is for files of the openssl command.
func NewRandom(dir string, seed uint64) (*Random, error) {
	k, err := makeKeys(dir)
	if err != nil {
		return nil, err
	}
	return &Random{r: rand.New(rand.NewPCG(seed, 0)), keys: k}, nil
}

// pick takes one of several, the first one in most cases.
func pick[T any](r *rand.Rand, usual T, others ...T) T {
	if r.IntN(100) < 70 {
		return usual
	}
	return others[r.IntN(len(others))]
}

func none(*spec) {}

// Next makes the next chain. Beside it there may be more than one candidate for
// an issuer.
func (g *Random) Next() Case {
	g.n++
	r, k := g.r, g.keys
	top := g.authority(nil, k.root, rootName)
	nodes := []*node{top}
	subKeys := []*key{k.sub, k.other, k.p384}
	for i := range r.IntN(4) {
		if i < len(subKeys) {
			name := pick(r, dn(fmt.Sprintf("O=Ours,CN=Sub %d", i)), subName, rootName, cn(printable, "sub  ca"), dn("O=Partner,CN=Sub"))
			nodes = append([]*node{g.authority(nodes[0], subKeys[i], name)}, nodes...)
		}
	}
	c := chain(fmt.Sprintf("random %d", g.n), append([]*node{g.leaf(nodes[0])}, nodes...)...)
	if r.IntN(3) == 0 {
		g.decoys(&c, nodes)
	}
	if len(c.Sent) > 0 && r.IntN(4) == 0 {
		c.CA, c.Sent = append(c.CA, c.Sent[0]), c.Sent[1:]
	}
	r.Shuffle(len(c.Sent), func(i, j int) { c.Sent[i], c.Sent[j] = c.Sent[j], c.Sent[i] })
	r.Shuffle(len(c.CA), func(i, j int) { c.CA[i], c.CA[j] = c.CA[j], c.CA[i] })
	c.Server = r.IntN(4) == 0
	c.Partial = r.IntN(6) == 0
	c.Level = pick(r, DefaultLevel, 1, 3)
	return c
}

// authority makes a CA certificate.
func (g *Random) authority(by *node, k *key, name []byte) *node {
	r := g.r
	ours := dirName(dn("O=Ours"))
	options := []option{
		pick(r, option(ca), with(pathLen(0), keyUsage(0x06, 1)), with(pathLen(1)), with(keyUsage(0x04, 2)), with(basic(false)), with(basic(true)), with(nsCertType(0x04)), none),
		pick(r, none, none, none, with(usage(clientAuth)), with(usage(serverAuth)), with(usage(anyUsage)), with(usage(clientAuth, serverAuth))),
		pick(r, none, with(permit(ours)), with(exclude(dirName(dn("O=Partner")))), with(permit(dnsName("ours.example"))), with(exclude(mailName("ours.example"))), with(permit(dirName(dn("O=Partner"))))),
		pick(r, none, expired, future, none, none),
		pick(r, none, plain, noAKI, version(-1), serial(0x80), with(ext("1.2.3.4", true, null)), none),
	}
	return issue(by, k, name, options...)
}

func (g *Random) leaf(by *node) *node {
	r := g.r
	name := pick(r, leafName, dn("CN=app_user"), dn("O=Partner,CN=app_user"), dn("O=Ours,CN=a.ours.example"), dn("O=Ours,E=app@ours.example"), seq())
	options := []option{
		pick(r, option(leaf), none, with(usage(serverAuth)), with(usage(serverAuth, clientAuth)), with(keyUsage(0x20, 5)), with(nsCertType(0x80)), with(usage()), ca),
		pick(r, none, with(san(dnsName("a.ours.example"))), with(san(mailName("app@ours.example"), dirName(dn("O=Partner")))), with(san(dnsName("partner.example"), uriName("urn:x")))),
		pick(r, none, expired, none, none, none),
		pick(r, none, plain, version(0), serial(0xff, 0), with(ext("2.5.29.17", true, seq()))),
	}
	return issue(by, pick(r, g.keys.leaf, g.keys.rsaLeaf, g.keys.ed25519, g.keys.rsa1024), name, options...)
}

// decoys adds certificates of the names in the chain.
func (g *Random) decoys(c *Case, nodes []*node) {
	r := g.r
	for i, n := range nodes {
		var by *node
		if i+1 < len(nodes) {
			by = nodes[i+1]
		}
		twin := g.authority(by, pick(r, n.key, g.keys.p521), n.name)
		if r.IntN(2) == 0 {
			c.CA = slices.Insert(c.CA, r.IntN(len(c.CA)+1), twin.der)
		} else {
			c.Sent = slices.Insert(c.Sent, r.IntN(len(c.Sent)+1), twin.der)
		}
	}
}
