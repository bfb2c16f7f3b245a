package fault

import (
	"context"

	"github.com/doppel-iot/doppel/sim/device"
)

// embedded prepares a node with broker and log in its process: the devices' link is all there is to cut.
// It gives the node's flags.
func (r *Rig) embedded(ctx context.Context, ports *device.Random) ([]string, error) {
	mqtt, err := freePort(ctx, ports)
	if err != nil {
		return nil, err
	}
	kafka, err := freePort(ctx, ports)
	if err != nil {
		return nil, err
	}
	devices, err := r.proxy(ctx, DeviceLink, local(mqtt))
	if err != nil {
		return nil, err
	}
	r.Devices, r.Kafka = "mqtt://"+devices.Addr(), local(kafka)
	return []string{"--mqtt-addr", local(mqtt), "--kafka-addr", local(kafka)}, nil
}
