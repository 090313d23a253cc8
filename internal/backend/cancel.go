package backend

import (
	"context"
	"io"
	"time"

	"pgwicket/internal/pgwire"
)

// CancelTimeout bounds the life of a CancelRequest. PostgreSQL answers one by
// closing, within milliseconds.
const CancelTimeout = 5 * time.Second

// Cancel sends a CancelRequest and waits until the backend closes the connection,
// which says that it is done; how it closes is not ours to judge. connected is
// called when there is a connection.
func (h *Host) Cancel(ctx context.Context, packet []byte, connected func()) error {
	conn, err := h.Connect(ctx, CancelTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	connected()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_ = conn.SetDeadline(time.Now().Add(CancelTimeout))
	if _, err := conn.Write(packet); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, conn)
	return nil
}

// CancelQuery cancels what the backend of an ended session is still doing.
// PostgreSQL only notices that its client has gone when it writes, and a DELETE
// of a revoked client would run to its end.
func (h *Host) CancelQuery(ctx context.Context, login pgwire.Login) {
	if login.PID == 0 || len(login.Key) == 0 {
		return
	}
	// A backend that cannot be reached has nobody to work for either.
	_ = h.Cancel(ctx, pgwire.Cancel(login.PID, login.Key), func() {})
}
