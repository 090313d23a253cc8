package gate

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Eventually waits until holds returns nil. It fails when ctx ends, after that
// time, or at once for an error of Never; what names the condition in the error.
func Eventually(ctx context.Context, what string, within time.Duration, holds func() error) error {
	for deadline := time.Now().Add(within); ; {
		err := holds()
		var final never
		switch {
		case err == nil:
			return nil
		case errors.As(err, &final):
			return fmt.Errorf("%s: %w", what, final.error)
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("%s: not within %v: %w", what, within, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Never marks the error of a condition that cannot come to hold any more.
func Never(err error) error { return never{err} }

type never struct{ error }

func (n never) Unwrap() error { return n.error }
