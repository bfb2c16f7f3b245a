package fault

import (
	"context"
	"errors"
	"sync"

	"github.com/doppel-iot/doppel/sim/device"
)

// The ports that go with that of a server.
var companions = map[Subject][]int{Kafka: {1}, QuestDB: {3, 9, -188}, Mosquitto: nil}

// real starts Kafka, QuestDB and Mosquitto and prepares the links to them. Kafka tells its clients to come
// through the proxy; so do readers. It gives the node's flags.
func (r *Rig) real(ctx context.Context, root string, ports *device.Random) ([]string, error) {
	addr := make(map[Subject]string)
	for _, s := range []Subject{Kafka, QuestDB, Mosquitto} {
		dir, err := r.folder(s)
		if err != nil {
			return nil, err
		}
		port, err := freePort(ctx, ports, companions[s]...)
		if err != nil {
			return nil, err
		}
		addr[s] = local(port)
		var more []string
		if s == Kafka {
			through, err := r.proxy(ctx, KafkaLink, addr[s])
			if err != nil {
				return nil, err
			}
			more = []string{"--advertise", through.Addr()}
		}
		r.processes[s] = newService(s, root, dir, port, more...)
	}
	if err := r.startAll(ctx); err != nil {
		return nil, err
	}
	devices, err1 := r.proxy(ctx, DeviceLink, addr[Mosquitto])
	broker, err2 := r.proxy(ctx, BrokerLink, addr[Mosquitto])
	rows, err3 := r.proxy(ctx, QuestDBLink, addr[QuestDB])
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	r.Devices, r.Kafka, r.QuestDB = "mqtt://"+devices.Addr(), r.links[KafkaLink].Addr(), "http://"+addr[QuestDB]
	return []string{
		"--mqtt", "mqtt://" + broker.Addr(), "--kafka", r.Kafka, "--questdb", "http://" + rows.Addr(), "--node-addr", "127.0.0.1:0",
	}, nil
}

// startAll starts the servers at once.
func (r *Rig) startAll(ctx context.Context) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, p := range r.processes {
		all.Go(func() {
			if err := p.run(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
