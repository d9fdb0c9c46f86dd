"""`thinfilm bench chaos`: harm gateways under load; nothing acknowledged may be lost, nothing half left."""
