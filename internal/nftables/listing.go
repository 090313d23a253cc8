package nftables

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// object is one entry of the listing of nft -j (libnftables-json(5)).
type object struct {
	Table *struct {
		Flags any `json:"flags"`
	} `json:"table"`
	Set *struct {
		Name string            `json:"name"`
		Elem []json.RawMessage `json:"elem"`
	} `json:"set"`
	Chain *struct {
		Name   string `json:"name"`
		Type   string `json:"type"`
		Hook   string `json:"hook"`
		Prio   int    `json:"prio"`
		Policy string `json:"policy"`
	} `json:"chain"`
	Rule *struct {
		Chain string           `json:"chain"`
		Expr  []map[string]any `json:"expr"`
	} `json:"rule"`
}

// readTable parses a table as nft -j lists it.
func readTable(text []byte) (t table, err error) {
	var listing struct {
		Objects []object `json:"nftables"`
	}
	if err := json.Unmarshal(text, &listing); err != nil {
		return t, err
	}
	rules := make(map[string][]string)
	for _, o := range listing.Objects {
		switch {
		case o.Table != nil && o.Table.Flags != nil:
			rules["input"] = append(rules["input"], fmt.Sprintf("(the table has the flags %v)", o.Table.Flags))
		case o.Set != nil:
			s := set{name: o.Set.Name}
			for _, e := range o.Set.Elem {
				one, err := readSpan(e)
				if err != nil {
					return t, fmt.Errorf("set %s: %w", s.name, err)
				}
				s.spans = append(s.spans, one)
			}
			s.spans = merge(s.spans)
			t.sets = append(t.sets, s)
		case o.Chain != nil:
			c := chain{name: o.Chain.Name}
			if o.Chain.Hook != "" {
				c.base = fmt.Sprintf("type %s hook %s priority %d; policy %s;", o.Chain.Type, o.Chain.Hook, o.Chain.Prio, o.Chain.Policy)
				c.base = strings.Replace(c.base, "priority 0;", "priority filter;", 1)
			}
			t.chains = append(t.chains, c)
		case o.Rule != nil:
			rules[o.Rule.Chain] = append(rules[o.Rule.Chain], ruleText(o.Rule.Expr))
		}
	}
	for i, c := range t.chains {
		t.chains[i].rules = rules[c.name]
	}
	return t, nil
}

// readSpan reads an element: an address, a prefix or a range.
func readSpan(text json.RawMessage) (span, error) {
	var one netip.Addr
	if json.Unmarshal(text, &one) == nil {
		return span{one, one}, nil
	}
	var e struct {
		Prefix *struct {
			Addr netip.Addr `json:"addr"`
			Len  int        `json:"len"`
		} `json:"prefix"`
		Range []netip.Addr `json:"range"`
	}
	switch err := json.Unmarshal(text, &e); {
	case err != nil:
		return span{}, err
	case e.Prefix != nil:
		return spanOf(netip.PrefixFrom(e.Prefix.Addr, e.Prefix.Len)), nil
	case len(e.Range) == 2:
		return span{e.Range[0], e.Range[1]}, nil
	}
	return span{}, fmt.Errorf("%s is no address", text)
}

// ruleText writes a rule as Rules does. An expression that Rules never writes becomes
// JSON, which equals nothing.
func ruleText(expr []map[string]any) string {
	var words []string
	for _, e := range expr {
		for name, value := range e {
			words = append(words, expressionText(name, value))
		}
	}
	return strings.Join(words, " ")
}

func expressionText(name string, value any) string {
	m, _ := value.(map[string]any)
	switch {
	case name == "counter":
		return name // without its count
	case name == "accept" || name == "drop":
		return name
	case name == "goto":
		return fmt.Sprint("goto ", m["target"])
	case name == "reject" && len(m) == 1 && m["type"] == "tcp reset":
		return "reject with tcp reset"
	case name == "match" && m["op"] == "==":
		left, _ := m["left"].(map[string]any)
		payload, _ := left["payload"].(map[string]any)
		meta, _ := left["meta"].(map[string]any)
		switch {
		case meta["key"] == "iif":
			return fmt.Sprintf("iif %q", m["right"])
		case meta != nil:
			return fmt.Sprintf("meta %v %v", meta["key"], m["right"])
		case payload != nil:
			return fmt.Sprintf("%v %v %v", payload["protocol"], payload["field"], m["right"])
		}
	}
	text, _ := json.Marshal(map[string]any{name: value})
	return string(text)
}
