package upgrade

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/handover"
)

// Claim has this process accept connections from now on, and keeps the old one from it as long as this one lives. It
// fails if the old one has taken everything back: it has waited too long, or was told to stop. Serving must follow.
func (p *Predecessor) Claim() error {
	if p.claim.Take() {
		return nil
	}
	p.conn.SetDeadline(time.Now().Add(time.Second))
	for {
		var why failure
		f, err := p.conn.Receive()
		if err != nil {
			return errors.New("the process before has taken everything back")
		}
		f.Close()
		if f.Kind == handover.Failed && f.Decode(&why) == nil {
			return fmt.Errorf("the process before has taken everything back: %s", why.Reason)
		}
	}
}

// Serving says that this process accepts connections, and listens to the old one from now on, until it has ended:
// ended is called then. When it returns the service manager knows this process, if the old one has told it.
func (p *Predecessor) Serving(ended func()) {
	p.conn.SetDeadline(time.Time{})
	p.conn.SetWriteDeadline(time.Now().Add(switchTimeout))
	_ = p.conn.Send(handover.Serving, nil, nil) // follow has the error
	p.conn.SetWriteDeadline(time.Time{})
	first := make(chan struct{})
	go p.follow(first, ended)
	select {
	case <-first:
	case <-time.After(switchTimeout):
	}
}

// Stop says that this process has been told to stop. The old one must not accept again when it is gone.
func (p *Predecessor) Stop() {
	p.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = p.conn.Send(handover.End, nil, nil)
	p.conn.SetWriteDeadline(time.Time{})
}

// Fail tells the old process why this one does not take over.
func (p *Predecessor) Fail(err error) {
	p.conn.SetDeadline(time.Now().Add(time.Second))
	_ = p.conn.Send(handover.Failed, failure{err.Error()}, nil)
	_ = p.conn.Close()
}

// close ends the channel and the connection for commands. Only follow calls it.
func (p *Predecessor) close() {
	_ = p.conn.Close()
	if p.commandConn != nil {
		_ = p.commandConn.Close()
	}
	p.process.Close()
	p.claim.Close()
	p.tookBack.Close()
}

// follow listens to the old process until it has ended, and calls ended then. It closes first when the old one has said
// something, or will not.
func (p *Predecessor) follow(first chan<- struct{}, ended func()) {
	g := p.gate
	heard := sync.OnceFunc(func() { close(first) })
	defer p.close()
	defer func() { // before close: a command that fails because of it has nobody to reach
		p.places.ReleaseAll()
		ended()
		close(p.over)
	}()
	defer heard()
	for {
		f, err := p.conn.Receive()
		heard()
		if err == nil && f.Kind == handover.End {
			g.Log.Info("the process before has ended in order", "pid", p.PID)
			return
		}
		if err == nil {
			err = p.apply(&f)
		}
		if err != nil {
			p.settle()
			p.lost(err)
			return
		}
	}
}

// lost takes note that nothing more will come from the old process, and returns when that has ended. Until then it has
// sessions, which count for the limits of this one, and carries out what Ask asks for.
func (p *Predecessor) lost(err error) {
	g := p.gate
	dead := p.process.Ended(deathTimeout)
	if !dead {
		g.Log.Error("the channel to the process before is closed; that process finishes its sessions, and this one accepts the connections", "pid", p.PID, "error", err.Error())
	}
	p.report(Result{Moved: p.moved}) // unless it was made when all had been handed over: the command waits for it
	_ = p.conn.Close()               // so that the old one knows, too
	for !dead {
		dead = p.process.Ended(time.Minute)
	}
	g.Log.Error("the process before is gone; sessions that it still had have ended", "pid", p.PID, "error", err.Error())
	g.Metrics.CarriedEnded()
}

// Terminate has sessions end as they arrive.
func (p *Predecessor) Terminate(matches func(*acl.Request) bool, detail string) {
	p.places.Terminate(matches, detail)
}
