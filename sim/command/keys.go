package command

import (
	"crypto/tls"
	"fmt"

	"google.golang.org/grpc"

	"github.com/doppel-iot/doppel/gateway/auth"
	"github.com/doppel-iot/doppel/gateway/certs"
	"github.com/doppel-iot/doppel/gateway/files"
)

// keys are how the simulator comes through locked doors.
type keys struct {
	broker   *tls.Config // of mqtts; nil: the system's authorities
	password string      // at the broker
	dial     []grpc.DialOption
	node     *tls.Config // of HTTP and Kafka; nil: plain
	token    string
}

// keys reads the files that the options name.
func (o *Options) keys() (k keys, err error) {
	mine := certs.Files{Cert: o.TLSCert, Key: o.TLSKey, CA: o.TLSCA}
	if mine != (certs.Files{}) {
		s, err := certs.Open(mine)
		if err != nil {
			return k, err
		}
		k.broker = s.Client()
	}
	if o.MQTTPassword != "" {
		if k.password, err = files.Secret(o.MQTTPassword); err != nil {
			return k, fmt.Errorf("mqtt-password-file: %w", err)
		}
	}
	who := auth.Client{TLS: o.TLS, TokenFile: o.TokenFile}
	if o.TLS {
		who.Files = mine
	}
	if k.token, err = who.Secret(); err != nil {
		return k, err
	}
	if k.node, err = who.Config(); err != nil {
		return k, err
	}
	k.dial, err = who.DialOptions(o.GRPC)
	return k, err
}
