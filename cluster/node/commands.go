package node

import (
	"context"
	"errors"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/gateway/api"
	"github.com/doppel-iot/doppel/gateway/command"
	"github.com/doppel-iot/doppel/gateway/mqtt"
)

// openCommands makes the book of commands. It is run last: when the node stops, calls that wait for devices
// end before their way to them does.
func (a *assembly) openCommands() {
	a.commands = command.New(command.Config{Node: a.id, Incarnation: a.incarnation, Sender: sender{a}, Presence: presence{a}})
}

// sender hands commands to the MQTT door, and replied its replies to the book.
type sender struct{ a *assembly }

func (s sender) Send(ctx context.Context, m *command.Message) error {
	err := s.a.door.Command(ctx, &mqtt.Command{Device: m.Device, Name: m.Name, Payload: m.Body, Correlation: m.Correlation, Expiry: m.Expiry})
	if errors.Is(err, mqtt.ErrNotConnected) {
		return errors.Join(command.ErrNotSent, err)
	}
	return err
}

func (a *assembly) replied(r mqtt.Reply) {
	a.commands.Reply(&command.Reply{Device: r.Device, Name: r.Name, Correlation: r.Correlation, Answer: command.NewAnswer(r.Status, r.Payload)})
}

// presence says from the twins of this node which devices are there.
type presence struct{ a *assembly }

func (p presence) Online(ctx context.Context, partition int32, device string) (bool, error) {
	twins, err := p.a.host.Twins(ctx, partition, []string{device})
	if err != nil {
		return false, err
	}
	if len(twins) == 0 {
		return false, host.ErrUnknownDevice
	}
	return twins[0].GetOnline(), nil
}

// watchers are those who want to hear which twins change.
type watchers struct {
	hub  *api.Hub
	book *command.Book
}

func (w watchers) TwinsWatched() bool { return w.hub.TwinsWatched() || w.book.Watching() }

func (w watchers) TwinChanged(p int32, device string, version uint64) {
	if w.hub.TwinsWatched() {
		w.hub.TwinChanged(p, device, version)
	}
	w.book.Changed(device)
}
