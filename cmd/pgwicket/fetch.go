package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
	"pgwicket/internal/crl"
	"pgwicket/internal/crlfetch"
	"pgwicket/internal/phrase"
	"pgwicket/metrics"
)

const fetchHelp = `Keep copies of the revocation lists of tls.crl_urls in tls.crl_dir, where the gate
watches them. The gate itself downloads nothing. Run this beside it, under an account
that may write to tls.crl_dir: as pgwicket-fetch.service, or from cron with --once. A
list replaces its copy only if a CA of ca_file has signed it, it is in force, and it is
not older than the copy. Otherwise the copy stays, and the log has the reason.
HTTP and HTTPS are supported, with the proxy of HTTP_PROXY and HTTPS_PROXY; LDAP is not.

Exit status: 0 stopped by a signal, or with --once all lists are fetched; 1 a list was
not fetched; 2 wrong usage; 78 the configuration is wrong.`

// fetchMemory is the memory from which on garbage is collected at once. Two downloads of the largest
// lists, over copies as large, otherwise have more than the 512 MiB of pgwicket-fetch.service.
const fetchMemory = 320 << 20

func fetchCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "fetch", Short: "Download revocation lists", Long: fetchHelp,
		Example: "  pgwicket fetch --once",
	}
	path := cli.ConfigFlag(cmd)
	once := cmd.Flags().Bool("once", false, "download every list once, and exit")
	interval := cmd.Flags().Duration("interval", crlfetch.DefaultInterval, "`time` between two downloads of a list")
	cli.CompleteWords(cmd, "interval")
	var address string
	cli.TextFlag(cmd, &address, "metrics", "", "serve metrics on this `address`, such as 127.0.0.1:10433")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *interval < time.Minute || *interval > 7*24*time.Hour {
			return errors.New("--interval: it must be from 1m to 168h")
		}
		return nil
	}
	return cli.Runs(cmd, func() int {
		sources, status := listSources(s, *path)
		if status != cli.OK {
			return status
		}
		if os.Getenv("GOMEMLIMIT") == "" {
			debug.SetMemoryLimit(fetchMemory)
		}
		log, _, flush := newLogger(s, "auto", slog.LevelInfo, func() {})
		defer flush()
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		f := &crlfetch.Fetcher{Interval: *interval, Log: log}
		if *once {
			if n := f.Once(ctx, sources); n > 0 {
				log.Error("not all revocation lists are fetched", "failed", n)
				return cli.Failed
			}
			return cli.OK
		}
		if address != "" {
			if err := serveFetchMetrics(ctx, f, sources, address); err != nil {
				return cli.Fail(s, cmd.Name(), err)
			}
		}
		log.Info("ready", "lists", countURLs(sources))
		f.Run(ctx, sources)
		return cli.OK
	})
}

func countURLs(sources []crlfetch.Source) (n int) {
	for _, s := range sources {
		n += len(s.URLs)
	}
	return n
}

// listSources reads the configuration, and the distribution points of its certificates.
func listSources(s cli.Streams, path string) (sources []crlfetch.Source, status int) {
	all, problems := config.ListSources(path)
	for _, p := range problems {
		fmt.Fprintln(s.Err, p)
	}
	switch {
	case config.Failed(problems):
		return nil, cli.BadConfig
	case len(all) == 0:
		fmt.Fprintln(s.Err, "pgwicket fetch: there are no crl_urls to fetch: set tls.crl_urls")
		return nil, cli.BadConfig
	}
	for _, one := range all {
		urls := slices.DeleteFunc(slices.Clone(one.URLs), func(u string) bool { return u == crl.FromCertificates })
		if len(urls) < len(one.URLs) {
			found, unsupported, err := crlfetch.PointsOf(one.CertFiles)
			if err != nil {
				return nil, cli.Fail(s, "fetch", err)
			}
			for _, u := range unsupported {
				fmt.Fprintf(s.Err, "pgwicket fetch: the distribution point %q is not by HTTP, and is left out\n", u)
			}
			if len(found) == 0 {
				fmt.Fprintf(s.Err, "pgwicket fetch: %s.crl_urls: no certificate of ca_file and cert_file names a distribution point by HTTP\n", one.Section)
			}
			urls = append(urls, found...)
		}
		slices.Sort(urls)
		sources = append(sources, crlfetch.Source{URLs: slices.Compact(urls), Dir: one.Dir, CAFile: one.CAFile})
	}
	if countURLs(sources) == 0 {
		return nil, cli.Fail(s, "fetch", fmt.Errorf("%s to fetch", phrase.Count(0, "list")))
	}
	return sources, cli.OK
}

// serveFetchMetrics serves the metrics until ctx ends.
func serveFetchMetrics(ctx context.Context, f *crlfetch.Fetcher, sources []crlfetch.Source, address string) error {
	var urls, reasons []string
	for _, s := range sources {
		urls = append(urls, s.URLs...)
	}
	for _, r := range crlfetch.Reasons() {
		reasons = append(reasons, string(r))
	}
	m := metrics.NewFetch(urls, reasons)
	f.Report = func(r crlfetch.Result) {
		if r.Reason != "" {
			m.Failed(r.URL, string(r.Reason))
			return
		}
		m.Fetched(r.URL, time.Now(), r.Next)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: m.Handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return nil
}
