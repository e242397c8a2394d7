package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"go.uber.org/zap"

	"hapair/mirror/front/holder"
)

// Holders lists the connected clients, one entry for each connection. A client
// is whoever opened the socket, even if it passed it on (as nbd-client does to
// the kernel).
func (e *Export) Holders() ([]holder.Holder, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.holders(), nil
}

// holders is called with the lock held.
func (e *Export) holders() []holder.Holder {
	var found []holder.Holder
	for c, present := range e.mu.serving {
		if present {
			found = append(found, c.peer)
		}
	}
	return found
}

// Stop ends the export if no client is connected, and waits for what clients
// that have gone left in flight. With clients it returns *holder.BusyError and
// changes nothing. When ctx ends first no request will be submitted any more
// either, but some may still be at the Handler; Stop may be called again.
func (e *Export) Stop(ctx context.Context) error {
	e.mu.Lock()
	if e.mu.listener != nil {
		if held := e.holders(); len(held) > 0 {
			e.mu.Unlock()
			return &holder.BusyError{Path: e.config.Socket, Holders: held}
		}
	}
	err := e.shut()
	e.mu.Unlock()
	if err != nil {
		return err
	}
	idle := make(chan struct{})
	go func() {
		e.running.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("export %s: requests of clients that have gone are still in flight: %w", e.config.Socket, ctx.Err())
	}
}

// Abort disconnects every client, whatever is in flight: a client fails its
// requests itself when the connection ends. It does not wait for the Handler,
// whose late completions go nowhere.
func (e *Export) Abort(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.shut()
	for c := range e.mu.serving {
		err = errors.Join(err, c.abort())
	}
	return err
}

// shut closes the door: nobody new comes in, handshakes end. Called with the
// lock held; does nothing the second time.
func (e *Export) shut() error {
	if e.mu.listener == nil {
		return nil
	}
	l := e.mu.listener
	e.mu.listener = nil
	l.SetUnlinkOnClose(false) // removed below, where the error shows
	err := errors.Join(l.Close(), os.Remove(e.config.Socket))
	for c := range e.mu.greeting {
		if cerr := c.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	e.log.Info("NBD export closed", zap.String("socket", e.config.Socket))
	if err != nil {
		return fmt.Errorf("close export %s: %w", e.config.Socket, err)
	}
	return nil
}
