package pgtest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// StartStandby starts a hot standby of s, which follows it over its socket: pg_hba.conf must admit the
// superuser to replication there. s is stopped for a moment, because its files are copied. Options that
// make a new server have no meaning: Ident, SQL, Files and Dir. The caller must call Stop.
func (s *Server) StartStandby(ctx context.Context, o Options) (*Server, error) {
	base, err := os.MkdirTemp(TempDir(s.account != nil), "pgwicket-pg-")
	if err != nil {
		return nil, err
	}
	o.BinDir, o.LibDir = s.options.BinDir, s.options.LibDir
	o.Settings = append([]string{"primary_conninfo=host=" + s.SocketDir + " port=" + strconv.Itoa(s.Port) + " user=" + Superuser + " sslmode=disable"}, o.Settings...)
	standby := &Server{SocketDir: filepath.Join(base, "run"), Port: 5432, BinDir: s.BinDir, base: base, account: s.account, options: o}
	if o.Host != "" {
		if standby.Port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if err := standby.follow(ctx, s); err != nil {
		standby.Stop()
		return nil, fmt.Errorf("start a standby: %w", err)
	}
	return standby, nil
}

// follow copies the data of a server, and starts with them.
func (s *Server) follow(ctx context.Context, primary *Server) error {
	if err := s.makeDirs(); err != nil {
		return err
	}
	primary.signal(syscall.SIGINT)
	<-primary.exited
	err := os.CopyFS(s.data(), os.DirFS(primary.data()))
	if err2 := primary.Restart(ctx); err2 != nil {
		return err2
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.data(), "standby.signal"), nil, 0o600); err != nil {
		return err
	}
	if s.options.HBA != "" {
		if err := os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(s.options.HBA+"\n"), 0o600); err != nil {
			return err
		}
	}
	if s.account != nil {
		err := filepath.WalkDir(s.data(), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, int(s.account.uid), int(s.account.gid))
		})
		if err != nil {
			return err
		}
	}
	if err := s.launch(); err != nil {
		return err
	}
	return s.waitReady(ctx)
}
