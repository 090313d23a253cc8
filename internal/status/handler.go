package status

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

//go:embed page.css
var style string

//go:embed page.html
var markup string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"number": func(n any) string {
		if i, ok := n.(int); ok {
			return number(i)
		}
		return number(n.(uint64))
	},
	"ago": ago, "clock": clock, "date": date, "moment": moment, "plural": plural, "span": span, "why": why,
	"level": func(l Level, percent int) map[string]any { return map[string]any{"Level": l, "Percent": percent} },
	"counts": func(caption, name, unit string, all []Count) map[string]any {
		some, zeros := apart(all)
		return map[string]any{"Caption": caption, "Name": name, "Unit": unit, "All": some, "Zeros": zeros}
	},
	"share": share, "join": strings.Join, "fields": strings.Fields,
	"style": func() template.CSS { return template.CSS(style) }, //nolint:gosec // the file is part of the binary
}).Parse(markup))

// apart returns the counts that are not 0, and the names of the others: a gate has dozens of
// outcomes, most of which it never has.
func apart(all []Count) (some []Count, zeros []string) {
	for _, c := range all {
		if c.Count == 0 {
			zeros = append(zeros, c.Name)
		} else {
			some = append(some, c)
		}
	}
	return some, zeros
}

// policy allows the page one style, by its digest, and nothing else: no script, image,
// frame or form. Content that a client injects can neither run nor load anything.
var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// refreshes are the refresh intervals that the page offers, in seconds.
var refreshes = []int{5, 30}

// maxRefresh is the longest refresh interval, in seconds.
const maxRefresh = 3600

// Page serves the status as HTML. It calls read for each request, concurrently.
func Page(read func() Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		every, err := strconv.Atoi(r.URL.Query().Get("refresh"))
		if err != nil || every < 1 || every > maxRefresh {
			every = 0
		}
		render(w, http.StatusOK, "page", map[string]any{"S": read().derive(), "Every": every, "Refreshes": refreshes})
	})
}

// JSON serves the status as JSON. It calls read for each request, concurrently.
func JSON(read func() Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, read().derive()) })
}

// WriteJSON writes v as the response.
func WriteJSON(w http.ResponseWriter, v any) {
	headers(w, "application/json; charset=utf-8")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v)
}

// Refuse writes an error page with the reason.
func Refuse(w http.ResponseWriter, code int, why string) {
	render(w, code, "refusal", map[string]any{"Code": code, "Title": http.StatusText(code), "Why": why})
}

func render(w http.ResponseWriter, code int, name string, data any) {
	var b bytes.Buffer // an error must not leave half a page
	if err := page.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "cannot render the page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	headers(w, "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = b.WriteTo(w)
}

func headers(w http.ResponseWriter, content string) {
	h := w.Header()
	h.Set("Content-Type", content)
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// ByHost refuses requests with a host name in the Host header, except localhost and those
// of names, which it calls for each request. It prevents DNS rebinding: a web page in the
// operator's browser can point its own name at 127.0.0.1 after it was loaded, and then
// read responses of this gate as its own. Such a request has that name in Host. An IP
// address in Host is safe, because it cannot be pointed elsewhere, and so is a request
// without Host, which no browser sends.
func ByHost(names func() []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		known := func(name string) bool { return strings.EqualFold(name, host) }
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && !known("") && !known("localhost") && !slices.ContainsFunc(names(), known) {
			Refuse(w, http.StatusMisdirectedRequest, "Use the IP address of the gate, localhost, or a name of admin.hosts. Other names are refused, "+
				"because a web page could point its own name here and read this page.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// share returns a count as a percentage of the largest count.
func share(c Count, of []Count) uint64 {
	most := slices.MaxFunc(of, func(a, b Count) int { return int(a.Count) - int(b.Count) }).Count
	return 100 * c.Count / max(most, 1)
}
