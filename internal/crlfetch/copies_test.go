package crlfetch

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// published serves a list as a web server serves a file.
func published(list *[]byte, etag *string, modified *time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", *etag)
		http.ServeContent(w, r, "", *modified, bytes.NewReader(*list))
	}
}

func wantCopy(t *testing.T, s Source, u string, want []byte) {
	t.Helper()
	if data, err := os.ReadFile(filepath.Join(s.Dir, FileName(u))); err != nil || !bytes.Equal(data, want) {
		t.Errorf("the copy in %s is not the server's list: %v", s.Dir, err)
	}
}

// tls and admin.tls may have one URL and two directories: the copy of one says nothing about the other.
func TestTwoCopiesOfOneURL(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	server := serve(t)
	first := source(t, ca, server.URL)
	second := source(t, ca, server.URL)
	list, etag, modified := der(ca, 1), `"1"`, time.Now().Add(-2*time.Hour)
	server.does(published(&list, &etag, &modified))
	f := &Fetcher{}
	for range 2 {
		for _, s := range []Source{first, second} {
			fetch(t, f, s, server.URL, "", "")
			wantCopy(t, s, server.URL, list)
		}
		list, etag, modified = der(ca, 2), `"2"`, time.Now().Add(-time.Hour)
	}
}

// Somebody has put an older list back, with the time that it had.
func TestCopyPutBack(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	server := serve(t)
	s := source(t, ca, server.URL)
	path := filepath.Join(s.Dir, FileName(server.URL))
	older, before := der(ca, 1), time.Now().Add(-2*time.Hour)
	list, etag, modified := der(ca, 2), `"2"`, time.Now().Add(-time.Hour)
	server.does(published(&list, &etag, &modified))
	f := &Fetcher{}
	fetch(t, f, s, server.URL, "", "")
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, before, before); err != nil {
		t.Fatal(err)
	}
	fetch(t, f, s, server.URL, "", "")
	wantCopy(t, s, server.URL, list)
}

// The time of a copy that was damaged, or has ended, must not have the server keep its list back.
func TestUnusableCopyIsReplaced(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	server := serve(t)
	list, etag, modified := der(ca, 2), `"2"`, time.Now().Add(-time.Hour)
	server.does(published(&list, &etag, &modified))
	ended := der(ca, 1, func(l *tlstest.CRL) { l.NextUpdate = time.Now().Add(-time.Minute) })
	for what, copied := range map[string][]byte{"damaged": list[:len(list)-9], "ended": ended, "empty": {}} {
		s := source(t, ca, server.URL)
		if err := os.WriteFile(filepath.Join(s.Dir, FileName(server.URL)), copied, 0o600); err != nil { // its time is now
			t.Fatal(err)
		}
		if r := fetch(t, &Fetcher{}, s, server.URL, "", ""); !r.Changed {
			t.Errorf("%s: it stays", what)
		}
		wantCopy(t, s, server.URL, list)
	}
}

// A download that was slow must not put an older list in the place of a newer one, which another
// download has brought meanwhile.
func TestSlowDownload(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	server := serve(t)
	s := source(t, ca, server.URL)
	asked, answer := make(chan struct{}), make(chan struct{})
	server.does(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		_, _ = w.Write(der(ca, 2))
	})
	slow := make(chan Result)
	go func() { slow <- (&Fetcher{}).Fetch(context.Background(), s, server.URL) }()
	<-asked
	newest := der(ca, 3)
	server.sends(newest)
	fetch(t, &Fetcher{}, s, server.URL, "", "")
	close(answer)
	if r := <-slow; r.Reason != Older {
		t.Errorf("%+v", r)
	}
	wantCopy(t, s, server.URL, newest)
}

// One answer with an ETag that cannot be sent back must not spoil the requests after it.
func TestUnusableETag(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	for _, bad := range []string{"\"" + strings.Repeat("x", 40<<10) + "\"", "\"a b\""} {
		server := serve(t)
		s := source(t, ca, server.URL)
		list, modified := der(ca, 1), time.Now().Add(-2*time.Hour)
		server.does(published(&list, &bad, &modified))
		f := &Fetcher{}
		fetch(t, f, s, server.URL, "", "")
		list, modified = der(ca, 2), time.Now().Add(-time.Hour)
		server.does(func(w http.ResponseWriter, r *http.Request) {
			if sent := r.Header.Get("If-None-Match"); sent != "" {
				t.Errorf("%.20q is sent back", sent)
			}
			http.ServeContent(w, r, "", modified, bytes.NewReader(list))
		})
		fetch(t, f, s, server.URL, "", "")
		wantCopy(t, s, server.URL, list)
	}
}

// A list that changes twice in one second is not missed. When the second is over, what is asked for is only another
// list again.
func TestListOfTheSameSecond(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	for _, etag := range []string{"", `"of the time"`} {
		server := serve(t)
		s := source(t, ca, server.URL)
		list, modified, date := der(ca, 1), time.Now().Add(-time.Hour).Truncate(time.Second), time.Now().Add(-time.Hour)
		conditional := false
		server.does(func(w http.ResponseWriter, r *http.Request) {
			conditional = r.Header.Get("If-Modified-Since") != ""
			w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
			if etag != "" {
				w.Header().Set("ETag", etag)
			}
			http.ServeContent(w, r, "", modified, bytes.NewReader(list))
		})
		f := &Fetcher{}
		fetch(t, f, s, server.URL, "", "")
		list = der(ca, 2)
		fetch(t, f, s, server.URL, "", "")
		wantCopy(t, s, server.URL, list)
		date = modified.Add(time.Second)
		for _, want := range []bool{false, true} {
			if fetch(t, f, s, server.URL, "", ""); conditional != want {
				t.Errorf("ETag %s: a conditional request: %t, want %t", etag, conditional, want)
			}
		}
	}
}
