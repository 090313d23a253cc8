//go:build unix

package doctor

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgwicket/internal/docpage"
	"pgwicket/internal/doctor/report"
	"pgwicket/internal/golden"
	"pgwicket/internal/pgtest"
)

// goldenReport is the text of a report, without what differs from one machine to the next.
func goldenReport(t *testing.T, l *faultLab) string {
	t.Helper()
	r := report.Report{Findings: l.examine()}
	for i, f := range r.Findings {
		if f.Check == "server_version" { // the table of releases and the packages go on
			r.Findings[i] = report.Passed("a release")
		}
	}
	var out bytes.Buffer
	l.must(r.WriteText(&out, false))
	text := strings.ReplaceAll(out.String(), filepath.Dir(l.SocketDir), "/TEMP")
	text = regexp.MustCompile(`s\.PGSQL\.\d+`).ReplaceAllString(text, "s.PGSQL.5432")
	return text
}

// goldenLab is a server whose superuser logs in as on a Debian: by peer.
func goldenLab(t *testing.T, hba string) *faultLab {
	t.Helper()
	dir, err := pgtest.Find()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(dir, "15") {
		t.Skip("the golden files are of release 15")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	owner := me.Username // of the server, as pgtest starts it
	if owner == "root" {
		owner = "postgres"
	}
	db, err := pgtest.Start(t.Context(), pgtest.Options{
		HBA: "local all postgres peer map=test\n" + hba, Ident: "test root postgres\ntest " + owner + " postgres",
		Settings: []string{"log_timezone=UTC"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	return &faultLab{t, db, filepath.Join(filepath.Dir(db.SocketDir), "data"), ""}
}

// A stock Debian cluster: no failure, and nothing that cries wolf.
func TestStockCluster(t *testing.T) {
	t.Parallel()
	l := goldenLab(t, "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n"+
		"local replication all peer\nhost replication all 127.0.0.1/32 scram-sha-256\nhost replication all ::1/128 scram-sha-256")
	golden.File(t, "testdata/stock.txt", goldenReport(t, l))
}

// A cluster by docs/hardening.md, to the letter where a temporary server can have it, has
// no failure.
func TestHardenedCluster(t *testing.T) {
	t.Parallel()
	l := goldenLab(t, "local all all scram-sha-256")
	conf, err := os.OpenFile(filepath.Join(l.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	l.must(err)
	var sql []string
	for _, b := range docpage.Read(t, "../../docs/hardening.md") {
		text := strings.TrimSpace(b.Text)
		head, _, _ := strings.Cut(text, "\n")
		switch {
		case head == "# postgresql.conf" && !regexp.MustCompile(`(?m)^(ssl_|listen_|unix_)`).MatchString(text):
			_, err := conf.WriteString(text + "\n")
			l.must(err)
		case b.Lang == "sql" && !strings.Contains(text, "pg_stat_activity"):
			sql = append(sql, text)
		}
	}
	l.must(conf.Close())
	l.run("pg_checksums --enable --pgdata=" + l.data)
	l.mustSQL(strings.Join(sql, ";\n"))
	text := goldenReport(t, l)
	if strings.Contains(text, "  FAIL  ") {
		t.Error("a cluster by docs/hardening.md has a failure")
	}
	golden.File(t, "testdata/hardened.txt", text)
}
