package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// A client chooses how it cuts its startup packet into TLS records, and how much it pads
// each (RFC 8446, section 5.4): what PostgreSQL takes the gate takes, too. record_size_limit
// (RFC 8449) and max_fragment_length (RFC 6066) ask for records as short as these.
func TestRecordsOfAStartupPacket(t *testing.T) {
	t.Parallel()
	g, straight := besideItsOwnTLS(t, pgtest.Options{
		HBA: "local all all trust\nhostssl all all all trust",
		SQL: "create role app login",
	}, padded)

	short := startup(protocol3, "user", "app", "database", "postgres")
	long := startup(protocol3, "user", "app", "database", "postgres", "options", strings.Repeat(" ", 9_900))
	for _, c := range []struct {
		name   string
		packet []byte
		args   []string
	}{
		{"one record", long, nil},
		{"records of 512 bytes", long, []string{"-max_send_frag", "512"}},
		{"records of 512 bytes, TLS 1.2", long, []string{"-max_send_frag", "512", "-tls1_2"}},
		{"padded to 16 KiB", short, []string{"-record_padding", "16384"}},
		{"10,000 bytes, padded to 16 KiB", long, []string{"-record_padding", "16384"}},
		{"records of 512 bytes, padded to 1 KiB", long, []string{"-max_send_frag", "512", "-record_padding", "1024"}},
		{"records of 512 bytes, padded to 4 KiB", long, []string{"-max_send_frag", "512", "-record_padding", "4096"}},
	} {
		for who, address := range map[string]string{"PostgreSQL": straight, "the gate": g.Addr} {
			if err := startsByOpenSSL(t, address, c.packet, c.args...); err != nil {
				t.Errorf("%s: %s: %v", c.name, who, err)
			}
		}
	}
}

// padded lets the handshake of a client pass that pads its records to 16 KiB: it has three.
func padded(p *proxy.Policy) { p.Limits.HandshakeBytes = 64 << 10 }

// startsByOpenSSL sends a startup packet by openssl s_client and fails unless the server is ready for queries then.
func startsByOpenSSL(t *testing.T, address string, packet []byte, args ...string) error {
	t.Helper()
	cmd := program(t, nil, "openssl", append([]string{"s_client", "-connect", address, "-starttls", "postgres", "-quiet", "-no_ign_eof"}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	defer end()
	if _, err := in.Write(packet); err != nil {
		t.Fatal(err)
	}
	for {
		var head [5]byte
		if _, err := io.ReadFull(out, head[:]); err != nil {
			end() // nobody writes said any more
			return fmt.Errorf("%w: %s", err, said.String())
		}
		body := make([]byte, int(head[3])<<8|int(head[4])-4)
		if _, err := io.ReadFull(out, body); err != nil {
			return err
		}
		switch head[0] {
		case 'E':
			return fmt.Errorf("%q", body)
		case 'Z':
			return nil
		}
	}
}

// libpq with a configuration of OpenSSL that pads each record, as one that hides lengths does.
func TestPsqlWithPaddedRecords(t *testing.T) {
	g := newGate(t, realPostgres(t).SocketDir, certificateOf(testCA()), padded)
	conf := filepath.Join(t.TempDir(), "openssl.cnf")
	text := "openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nRecordPadding = 16384\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := psql(t, libpq(t, g, "OPENSSL_CONF="+conf), "select 6*7"); err != nil || out != "42" {
		t.Errorf("psql: %v: %s", err, out)
	}
}
