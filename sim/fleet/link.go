package fleet

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	connectTimeout = 5 * time.Second
	keepAlive      = 60 * time.Second
	readBuffer     = 16 << 10
)

// link is one established MQTT connection.
type link struct {
	net            net.Conn
	tcp            *net.TCPConn
	reader         *bufio.Reader
	receiveMaximum int
	granted        chan bool     // a SUBACK came: whether it refused something
	ended          chan struct{} // closed when the reader has returned
}

// dial opens a connection and speaks CONNECT.
func dial(ctx context.Context, e endpoint, version Version, clientID string) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", e.address)
	if err != nil {
		return nil, err
	}
	l := &link{net: raw, granted: make(chan bool, 1), ended: make(chan struct{})}
	l.tcp, _ = raw.(*net.TCPConn)
	if e.tls != nil {
		l.net = tls.Client(raw, e.tls)
	}
	l.reader = bufio.NewReaderSize(l.net, readBuffer)
	if err := l.handshake(ctx, e, version, clientID); err != nil {
		return nil, errors.Join(err, l.net.Close())
	}
	return l, nil
}

func (l *link) handshake(ctx context.Context, e endpoint, version Version, clientID string) error {
	deadline, _ := ctx.Deadline()
	if err := l.net.SetDeadline(deadline); err != nil {
		return err
	}
	hello := appendConnect(nil, credentials{
		version: version, clientID: clientID, user: e.user, password: e.password, keepAlive: uint16(keepAlive / time.Second),
	})
	if _, err := l.net.Write(hello); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	p, err := readPacket(l.reader, nil)
	if err != nil {
		return fmt.Errorf("connack: %w", err)
	}
	if p.kind != packetConnack {
		return fmt.Errorf("packet of type 0x%02x where CONNACK was due", p.kind)
	}
	if l.receiveMaximum, err = parseConnack(version, p.body); err != nil {
		return err
	}
	return l.net.SetDeadline(time.Time{})
}

// cut ends the connection as a pulled cable would: what the broker has not read is gone.
func (l *link) cut() {
	if l.tcp != nil {
		_ = l.tcp.SetLinger(0)
		_ = l.tcp.Close() // not through TLS, which would say goodbye
		return
	}
	_ = l.net.Close()
}

// leave says DISCONNECT.
func (l *link) leave() {
	_ = l.net.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = l.net.Write([]byte{packetDisconnect, 0})
	_ = l.net.Close()
}
