package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// ErrTakenOver is returned by [Adopt] when another client connected with the client id, or may have: the
// session is then its own again. Mosquitto 2.0.11 closes the connection of who is thrown out without a
// word, so that any break of the connection counts.
var ErrTakenOver = errors.New("mqtt: the session was taken over by another client")

// Adopt takes over the session of a node that is gone for good: what the broker had assigned to that
// node it would keep for it until the session expires, and then drop. cfg is that node's, with its
// client id. Adopt unsubscribes, delivers what is queued until all is released, and ends the session.
// It returns nil when there is none left. After any error, also that of ctx, the session is as the
// broker has it, and Adopt may be called again.
//
// To adopt a living node's session throws that node out. A node that comes back throws out its
// adopter, which then stops with [ErrTakenOver].
func Adopt(ctx context.Context, cfg Config, inlet Inlet, refuser Refuser, log *slog.Logger) error {
	c, err := New(cfg, inlet, refuser, log)
	if err != nil {
		return err
	}
	start := time.Now()
	err = c.errand(ctx, adopt)
	if errors.Is(err, errConnectionGone) {
		err = fmt.Errorf("%w: %w", ErrTakenOver, err)
	}
	if err != nil {
		return fmt.Errorf("adopt the session of %s: %w", cfg.ClientID, err)
	}
	log.InfoContext(ctx, "session of a node adopted and ended", "client_id", cfg.ClientID,
		"messages", c.stats.received(), "took", time.Since(start))
	return nil
}

func adopt(ctx context.Context, e *errand) error {
	cfg := e.client.cfg
	if err := cfg.permit(ctx); err != nil {
		return err
	}
	expiry, never := cfg.sessionExpirySeconds(), uint32(0)
	ack, err := e.connect(ctx, &paho.Connect{
		ClientID: cfg.ClientID, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry},
	}, false)
	if err != nil {
		return err
	}
	keep := &paho.Disconnect{}
	end := &paho.Disconnect{Properties: &paho.DisconnectProperties{SessionExpiryInterval: &never}}
	if ack.SessionPresent {
		if err := e.empty(ctx); err != nil {
			_ = e.close(keep) // an error means that the connection has ended
			return err
		}
	}
	if err := e.close(end); err != nil {
		return fmt.Errorf("end the session: %w", err)
	}
	return nil
}

// empty takes what the session holds and sees that nothing is added.
func (e *errand) empty(ctx context.Context) error {
	topics := e.client.unsubscribe()
	if _, err := e.paho.Unsubscribe(ctx, topics); err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	return e.ledger.awaitEmpty(ctx, &e.client.stats)
}
