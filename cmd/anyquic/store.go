package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/store/pebblestore"
)

// storeConfig says where and how sessions and retained messages are kept.
type storeConfig struct {
	Dir          string        `yaml:"dir"`  // empty: in memory
	Sync         string        `yaml:"sync"` // always or interval
	SyncInterval time.Duration `yaml:"sync-interval"`
}

const (
	syncAlways   = "always"
	syncInterval = "interval"
)

func defaultStore() storeConfig {
	return storeConfig{Sync: syncAlways, SyncInterval: 100 * time.Millisecond}
}

func (c *storeConfig) bind(fs *pflag.FlagSet) {
	fs.StringVar(&c.Dir, "store", c.Dir, "folder for sessions and retained messages, which then outlive the broker (default: in memory)")
	fs.StringVar(&c.Sync, "sync", c.Sync, "when the store is on the disk: always, before anything is acknowledged, or interval")
	fs.DurationVar(&c.SyncInterval, "sync-interval", c.SyncInterval, "what a machine that stops may lose with --sync interval")
}

func (c *storeConfig) check() error {
	if c.Sync != syncAlways && c.Sync != syncInterval {
		return fmt.Errorf(`--sync %q: use "always" or "interval"`, c.Sync)
	}
	if c.SyncInterval <= 0 {
		return errors.New("--sync-interval must be more than 0; --sync always is what comes nearest to 0")
	}
	return nil
}

// open opens the store, if there is one, and tells the broker's configuration
// of it.
func (c *storeConfig) open(bc *broker.Config, log *slog.Logger) (io.Closer, error) {
	if c.Dir == "" {
		return nil, nil
	}
	s, err := pebblestore.Open(c.Dir, &pebblestore.Config{Logger: log})
	if err != nil {
		return nil, fmt.Errorf("--store: %w", err)
	}
	bc.Store = s
	if c.Sync == syncInterval {
		bc.SyncInterval = c.SyncInterval
	}
	return s, nil
}

func closeStore(s io.Closer, log *slog.Logger) {
	if s == nil {
		return
	}
	if err := s.Close(); err != nil {
		log.Error("the store was not closed cleanly; what was acknowledged is in it", "error", err)
	}
}

// ofStore makes the values of a series of the store: none without a store.
func ofStore[T number](f func(*broker.StoreStats) T) func(*figures, emit) {
	return func(s *figures, e emit) {
		if s.Store != nil {
			e(float64(f(s.Store)))
		}
	}
}

var storeSeries = []series{
	{"mqtt_store_commits_total", counter, nil, "Batches written to the store; each is one fsync with --sync always.", ofStore(func(s *broker.StoreStats) uint64 { return s.Group.Commits })},
	{"mqtt_store_commit_seconds_total", counter, nil, "Time that the batches took.", ofStore(func(s *broker.StoreStats) float64 { return s.Group.WriteTime.Seconds() })},
	{"mqtt_store_changes_total", counter, nil, "Records put and deleted.", ofStore(func(s *broker.StoreStats) uint64 { return s.Group.Changes })},
	{"mqtt_store_changes_bytes_total", counter, nil, "Bytes of the records put and deleted.", ofStore(func(s *broker.StoreStats) uint64 { return s.Group.Bytes })},
	{"mqtt_store_pending_bytes", gauge, nil, "Bytes that wait for the next batch.", ofStore(func(s *broker.StoreStats) int64 { return s.Group.Pending })},
	{"mqtt_store_failing", gauge, nil, "1 while the store cannot be written, else 0.", ofStore(func(s *broker.StoreStats) int {
		if s.Group.Failing {
			return 1
		}
		return 0
	})},
	{"mqtt_store_failures_total", counter, nil, "Writes that failed and were tried again.", ofStore(func(s *broker.StoreStats) uint64 { return s.Group.Failures })},
	{"mqtt_store_refused_messages_total", counter, nil, "Messages refused because the store could not be written.", ofStore(func(s *broker.StoreStats) uint64 { return s.Refused })},
	{"mqtt_store_messages", gauge, nil, "Messages kept for sessions; each is stored once.", ofStore(func(s *broker.StoreStats) int { return s.Messages })},
	{"mqtt_store_damaged_records_total", counter, nil, "Records that could not be read at start.", ofStore(func(s *broker.StoreStats) uint64 { return s.Damaged })},
	{"mqtt_store_disk_bytes", gauge, nil, "Room that the store takes on the disk.", ofStore(func(s *broker.StoreStats) int64 { return s.Store.DiskBytes })},
	{"mqtt_store_disk_written_bytes_total", counter, nil, "Bytes written to the disk by log, flushes and compactions.", ofStore(func(s *broker.StoreStats) int64 { return s.Store.WrittenDisk })},
	{"mqtt_store_compactions_total", counter, nil, "Compactions of the store.", ofStore(func(s *broker.StoreStats) int64 { return s.Store.Compactions })},
}
