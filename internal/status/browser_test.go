package status

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shots are the images in docs/img, which "make screenshots" renders.
var shots = []struct {
	name   string
	status func() Status
	width  int
	dark   bool
}{
	{"light", sample, 1200, false},
	{"dark", sample, 1200, true},
	{"narrow", sample, 360, false},
	{"empty", empty, 1200, false},
	{"degraded", degraded, 1200, false},
}

// tallest is larger than any of the pages, in pixels.
const tallest = 12000

// browser runs Chromium once, in a profile of its own.
func browser(t *testing.T, url string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip(`there is no chromium; install it with "apt-get install chromium"`)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // it may be a slow machine
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append(slices.Concat([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(),
	}, args), url)...)
	cmd.WaitDelay = time.Second
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, complaints.String())
	}
	return string(out)
}

// A real browser shows all of it, with the style, and asks nobody else for anything.
func TestBrowser(t *testing.T) {
	t.Parallel()
	gate := httptest.NewServer(Page(degraded))
	defer gate.Close()
	var mu sync.Mutex
	var asked []string
	// Everything that it wants to load comes by here, what is on this machine too.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, "http://"+r.Host+r.URL.RequestURI())
		mu.Unlock()
		if "http://"+r.Host != gate.URL || r.Method == http.MethodConnect {
			http.Error(w, "there is nothing else", http.StatusBadGateway)
			return
		}
		gate.Config.Handler.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	dom := browser(t, gate.URL+"/?refresh=3600", "--proxy-server="+proxy.URL, "--proxy-bypass-list=<-loopback>", "--dump-dom")
	page := parsePage(t, dom)
	accessible(t, page)
	fetchesNothing(t, page)
	for _, want := range []string{"The gate is open. 9 things need attention.", "CN=Example Clients,O=Example", "crl_stale"} {
		if !strings.Contains(page.words(), want) {
			t.Errorf("there is no %q in\n%s", want, page.words())
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Contains(asked, gate.URL+"/?refresh=3600") {
		t.Errorf("it asked for %q", asked)
	}
	for _, one := range asked {
		u, err := url.Parse(one)
		switch {
		case err != nil:
			t.Error(err)
		case "http://"+u.Host == gate.URL && u.Path != "/":
			t.Errorf("the page loads %s", one)
		case "http://"+u.Host != gate.URL && !ownBusiness(u.Hostname()):
			t.Errorf("it asks elsewhere: %s", one)
		}
	}
}

// ownBusiness is what Chromium wants from its maker, whatever it shows.
func ownBusiness(host string) bool {
	return slices.ContainsFunc([]string{".google.com", ".googleapis.com", ".gvt1.com"}, func(s string) bool { return strings.HasSuffix(host, s) })
}

// The pictures of docs/img are of the page as it is.
func TestScreenshots(t *testing.T) {
	if os.Getenv("SCREENSHOTS") == "" {
		t.Skip(`run "make screenshots" to take them`)
	}
	for _, s := range shots {
		server := httptest.NewServer(Page(s.status))
		file, err := filepath.Abs(filepath.Join("../../docs/img", "status-"+s.name+".png"))
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"--screenshot=" + file, fmt.Sprintf("--window-size=%d,%d", s.width, tallest)}
		if s.dark {
			args = append(args, "--blink-settings=preferredColorScheme=0")
		}
		browser(t, server.URL+"/", args...)
		server.Close()
		if err := trim(file); err != nil {
			t.Fatal(err)
		}
	}
}

// trim cuts off what is below the page.
func trim(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	b := picture.Bounds()
	blank := picture.At(b.Min.X, b.Max.Y-1)
	bottom := b.Max.Y
	for ; bottom > b.Min.Y; bottom-- {
		if !uniform(picture, bottom-1, blank) {
			break
		}
	}
	const margin = 40
	if bottom+2*margin > b.Max.Y {
		return fmt.Errorf("the page of %s is taller than %d", file, tallest)
	}
	b.Max.Y = bottom + margin
	cut := image.NewRGBA(b)
	draw.Draw(cut, b, picture, b.Min, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, cut); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

func uniform(picture image.Image, y int, c color.Color) bool {
	for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x++ {
		if picture.At(x, y) != c {
			return false
		}
	}
	return true
}
