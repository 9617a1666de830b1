package client

// Validate returns what keeps cfg from being a configuration, nil if nothing does.
// It is what [Dial] would return before it connects.
func (cfg *Config) Validate() error {
	c, err := newClient(cfg)
	if err == nil {
		c.leave()
	}
	return err
}
