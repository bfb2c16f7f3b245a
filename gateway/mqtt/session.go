package mqtt

import (
	"io"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// session is paho's session state for what we send, and the ledger for what we receive. It is paho's
// session.SessionManager.
type session struct {
	*state.State
	ledger *ledger
}

func newSession(l *ledger) *session { return &session{State: state.NewInMemory(), ledger: l} }

// ConAckReceived puts the connection in force. It comes before anything is read from it but CONNACK.
func (s *session) ConAckReceived(w io.Writer, connect *packets.Connect, ack *packets.Connack) error {
	s.ledger.reset(w)
	s.ledger.setWindow(connect.Properties, ack.Properties)
	return s.State.ConAckReceived(w, connect, ack)
}

// ConnectionLost ends the connection's epoch. paho may call it twice.
func (s *session) ConnectionLost(d *packets.Disconnect) error {
	s.ledger.reset(nil)
	return s.State.ConnectionLost(d)
}

// PacketReceived takes part in the order of acknowledgements when a PUBLISH of somebody else's topic
// came to paho: it owes nothing, but its turn comes after those before it.
func (s *session) PacketReceived(p *packets.ControlPacket, pubs chan<- *packets.Publish) error {
	if pub, ok := p.Content.(*packets.Publish); ok && pub.QoS == 1 {
		s.ledger.mu.Lock()
		w := s.ledger.w
		s.ledger.mu.Unlock()
		if err := s.ledger.pushDone(w, pub.PacketID, 0); err != nil {
			return err
		}
		pubs <- pub
		return nil
	}
	return s.State.PacketReceived(p, pubs)
}

// Ack is paho's acknowledgement after its handlers: for QoS 1 the ledger has seen to it.
func (s *session) Ack(p *packets.Publish) error {
	if p.QoS == 1 {
		return nil
	}
	return s.State.Ack(p)
}
